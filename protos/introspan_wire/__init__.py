"""The contract that the SDK and the collector share: catalogue of signals, messages, codec."""
