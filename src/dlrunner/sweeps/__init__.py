"""Many runs: their folder, their jobs, searches, and the engines that start jobs."""
