"""The real model's next-token distributions in, capture's sampler.pit of tokens drawn at another temperature out."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, LlamaForCausalLM

from bench.faults import texts
from bench.faults.traffic import Traffic
from introspan.capture.output.sampler import Sampling, pit

_TEXTS = 24
_ROWS_A_TEXT = 16
_ASKED = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, reproducible=True)

U = NDArray[np.float64]


@torch.inference_mode()
def logits(model: Path, path: Path) -> NDArray[np.float32]:
    """Logits [rows, vocabulary] at the last positions of texts of the healthy mixture; kept in a file."""
    if path.exists():
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]  # NumPy does not say what a file holds
    network = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
    network.train(mode=False)
    traffic = Traffic(AutoTokenizer.from_pretrained(model))
    chosen = [*texts.drawn(texts.questions(), _TEXTS // 2, 1), *texts.drawn(texts.passages(), _TEXTS // 2, 1)]
    rows = [
        network(torch.tensor([traffic.ids(text)]), logits_to_keep=_ROWS_A_TEXT).logits[0] for text in chosen
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npy")
    np.save(partial, torch.cat(rows).numpy())
    partial.rename(path)
    return logits(model, path)


def pits(rows: NDArray[np.float32], temperature: float, each: int, seed: int) -> U:
    """U of tokens drawn at a temperature while capture believes in 1: float64 [rows · each], shuffled."""
    random = np.random.default_rng([seed, round(1000 * temperature)])
    found = [_pits(torch.from_numpy(np.array(row)), temperature, each, random) for row in rows]
    return random.permutation(np.concatenate(found))


def _pits(row: torch.Tensor, temperature: float, each: int, random: np.random.Generator) -> U:
    weights = (row - row.max()).exp()
    actual = (row.double() / temperature).softmax(0).numpy()
    tokens: list[int] = random.choice(len(actual), each, p=actual / actual.sum()).tolist()
    return np.array([pit(weights, token, _ASKED, float(random.random())) for token in tokens])
