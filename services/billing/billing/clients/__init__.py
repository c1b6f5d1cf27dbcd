"""Other services, as billing's ports see them."""
