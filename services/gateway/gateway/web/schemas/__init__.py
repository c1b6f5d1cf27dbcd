"""What goes over the wire as JSON, with examples; made from domain types here."""
