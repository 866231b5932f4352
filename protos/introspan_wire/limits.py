"""How much of anything one request may hold; the comments of the .proto files state the same numbers.

What identifies something beyond its limit makes the request malformed. Texts of a status beyond theirs are cut
by the collector: what a producer says of itself must never cost it the batch.
"""

REQUEST_BYTES = 4 * 2**20
NAME_CHARACTERS = 512
"""Of every text that identifies: resource fields and attributes, request ids, adapters, names of signals."""

REASON_CHARACTERS = 64
"""Of the reason of a drop or of a disabled signal, which becomes a label of a metric."""

DETAIL_CHARACTERS = 512
"""Of the sentence that says why a signal is disabled."""

ATTRIBUTES = 64
TABLES = 64
COLUMNS = 32_768
"""Of a table: room for every signal of 80 layers with 64 heads each."""

STATUS_ENTRIES = 256
"""Of a status, drops and disabled signals each."""
