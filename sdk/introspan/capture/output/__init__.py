"""Raw logits and tokens in, output and sampler signals out."""
