"use strict";

// Charts: the pointer, or the slider below, selects a point; the texts are computed by Python.
const SVG = "http://www.w3.org/2000/svg";

for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const chart = JSON.parse(figure.dataset.chart);
  const drawing = figure.querySelector("svg.plot");
  const slider = figure.querySelector("input");
  const output = figure.querySelector("output");
  const values = figure.querySelectorAll(".legend span");
  const caption = figure.querySelector("figcaption span");
  const mark = chart.paths ? highlighter(drawing) : cursor(drawing, chart);

  function show(index) {
    if (slider) slider.value = index;
    slider?.setAttribute("aria-valuetext", chart.texts[index]);
    if (output.textContent !== chart.texts[index]) output.textContent = chart.texts[index];
    chart.values?.[index]?.forEach((value, series) => (values[series].textContent = value));
    if (caption) [caption.textContent] = chart.texts[index].split(":");
    mark(index);
  }

  function point(event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
    show(chart.paths ? nearestPath(chart, at) : nearest(chart.x, at.x));
  }

  if (slider) {
    slider.hidden = false;
    slider.addEventListener("input", () => show(Number(slider.value)));
    slider.addEventListener("focus", () => show(Number(slider.value)));
  }
  drawing.addEventListener("pointermove", point);
  drawing.addEventListener("pointerdown", point);
}

function cursor(drawing, chart) {
  const line = drawing.appendChild(document.createElementNS(SVG, "path"));
  line.setAttribute("class", "cursor");
  const dots = chart.y.map((_, series) => {
    const dot = drawing.appendChild(document.createElementNS(SVG, "circle"));
    dot.setAttribute("class", `dot s${series % 8}`);
    return dot;
  });
  return (index) => {
    line.setAttribute("d", `M${chart.x[index]} ${chart.top}V${chart.bottom}`);
    dots.forEach((dot, series) => {
      const y = chart.y[series][index];
      dot.setAttribute("r", y === null ? 0 : 4.5);
      dot.setAttribute("cx", chart.x[index]);
      dot.setAttribute("cy", y ?? 0);
    });
  };
}

function highlighter(drawing) {
  const paths = [...drawing.querySelectorAll(".jobs path")].reverse();
  let front = null;
  return (index) => {
    front?.remove();
    front = paths[index].cloneNode();
    front.classList.add("on");
    paths[index].parentNode.append(front);
  };
}

function nearest(positions, x) {
  return positions.reduce((best, position, index) => (Math.abs(position - x) < Math.abs(positions[best] - x) ? index : best), 0);
}

function nearestPath(chart, at) {
  const left = Math.max(0, Math.min(chart.x.length - 2, chart.x.findLastIndex((x) => x <= at.x)));
  const fraction = Math.max(0, Math.min(1, (at.x - chart.x[left]) / (chart.x[left + 1] - chart.x[left])));
  const heights = chart.paths.map((y) => y[left] + fraction * (y[left + 1] - y[left]));
  return nearest(heights, at.y);
}

// Tables: a click on a heading sorts by its column, a second click reverses the order; missing values stay last.
for (const table of document.querySelectorAll("table.rows")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const other of heads) other.setAttribute("aria-sort", other === head ? way : "none");
      const rows = [...table.tBodies[0].rows].map((row) => [key(row.cells[column]), row]);
      rows.sort(([a], [b]) => compare(a, b, way === "ascending" ? 1 : -1));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

function key(cell) {
  const text = cell.dataset.order ?? cell.textContent.trim();
  if (text === "" || text === "-" || text === "null") return null;
  return Number.isNaN(Number(text)) ? text : Number(text);
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}
