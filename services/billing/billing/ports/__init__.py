"""What billing's use cases need from the outside, in domain types."""
