"""Under which conditions each part of `make bench` measures, as far as its values do not say."""

CONDITIONS = {
    "cost": """\
SmolLM2-135M-Instruct in float32; engine, model and exporter in one process with `OMP_NUM_THREADS=1`, whose CPU-seconds
are counted. *Idle* is the same engine with every hook in place, and `unhooked` the same engine with every hook taken
out of it, which only an eager one allows: `cpu_ratio` is to the first, `cpu_ratio_to_unhooked` to the second. Contexts
have some 20 to 50 keys, under `context_900` 900 to 924 drawn ones; what attention costs grows with them. Each ratio is
of twelve runs of each kind at defaults and six with everything on, in every order; `_low` and `_high` are its 95 %
interval, and a target of `cpu_ratio_high` is for the upper end. `ours_ms_per_step` is the time of the model's thread in
our code, averaged over all steps.
""",
    "latency": """\
The same model and threads, eager, at defaults, one request at a time: 40 rounds of the three kinds in drawn order. Five
steps of a kind are beyond its 99.9th percentile, so that `low` and `high`, from drawing whole rounds again, are wide; a
target of `high` is for the upper end.
""",
    "ingest": """\
Eight producers on the collector's machine. `rows_per_core_second` is the way from the RPC through log and decoding to
aggregates, without archive and detection, which `rows_per_core_second_with_every_consumer` has. That way is short of
40,000 rows a second and core, which aggregates alone reach: see [series](#series).
""",
    "series": """\
`aggregate.rows_per_cpu_second` is of aggregates alone, handed tables that are decoded already. The goal of 40,000 is
for the whole way from the RPC, where less is measured: `saturated.rows_per_core_second` under [ingest](#ingest).
""",
}
"""By name of the part."""
