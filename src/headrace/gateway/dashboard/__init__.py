"""The page that shows the stream live, in HTML, CSS and JavaScript without a build step."""
