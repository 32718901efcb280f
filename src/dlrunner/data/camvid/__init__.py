"""CamVid: road scenes."""
