"""Questions in; a served model's answers, as rows that `accept` takes like any other, out."""
