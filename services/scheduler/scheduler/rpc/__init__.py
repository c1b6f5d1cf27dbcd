"""gRPC servicers: wire types become domain types here, and back."""
