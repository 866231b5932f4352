"""The rows of the table of faults that detection is judged by: what is injected, and where each is reported."""

SMALL = "all weights change a little: noise, pruning, int8, fine-tuning, LoRA"
NEUTRAL = "weights change neutrally"
LAYER = "one layer damaged: exponent bit, zeroed shard, mis-scaled"
CACHE = "KV block swapped, stale or mis-scaled"
TEXT = "positions, tokenizer, template: the canary"
TEMPLATE = "tokenizer, template: traffic alone"
SAMPLER = "sampler at another temperature"
GREEDY = "greedy sampler not greedy"
LOOP = "repetition loop"
CONTENT = "other language, code, encodings, adversarial suffixes"
SHARE = "16 % and 0.8 % of requests faulty"
NULL = "nothing wrong: nulls"

ROWS = (SMALL, NEUTRAL, LAYER, CACHE, TEXT, TEMPLATE, SAMPLER, GREEDY, LOOP, CONTENT, SHARE, NULL)
"""All of them, in the order they are shown."""
