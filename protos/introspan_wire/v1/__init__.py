"""Generated protobuf and gRPC code of introspan_wire.v1. Made by `make proto`, never edited."""
