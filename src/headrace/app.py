"""The one place that constructs everything and joins the rooms."""
