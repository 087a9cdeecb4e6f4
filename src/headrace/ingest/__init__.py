"""The update flow: source → dedupe → decode → enrich → publish."""
