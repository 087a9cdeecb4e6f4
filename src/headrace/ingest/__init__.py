"""The update flow: source → dedupe → decode → enrich → market → publish."""
