"""Other services as the gateway's ports: wire types in, domain types out."""
