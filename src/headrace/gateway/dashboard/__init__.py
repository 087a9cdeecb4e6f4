"""The page that shows the stream live: HTML, CSS and JavaScript, no build."""
