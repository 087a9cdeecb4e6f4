"""From bytes to named fields: Anchor IDLs compiled to fast decoders, and events found in transactions. Pure."""
