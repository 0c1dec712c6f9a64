"""The vectors that `minilm.rs` compares with, by an implementation that shares nothing with ours.

    cargo xtask setup model
    python3 -m venv venv && venv/bin/pip install numpy==2.4.6 tokenizers==0.23.3 safetensors==0.8.0
    venv/bin/python sidecar-gpu/engine/tests/models/reference.py target/models/all-MiniLM-L6-v2 \
        > sidecar-gpu/engine/tests/models/minilm.json

Everything is computed in double precision, one text at a time, as the paper has it.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

TEXTS = [
    "This is an example sentence",
    "How do I reset the PIN of my credit card?",
    "My card's PIN is gone; can it be set anew?",
    "Integrate x squared from zero to three.",
    "",
    "   \n\t ",
    "Der Überschuss wächst: „größer“, naïve café, Æsop, İstanbul",
    "数据库连接超时，请重试。 データベース 데이터베이스",
    "🚀👩‍👩‍👧 emoji \u200b zero width, e\u0301 combining, ﬁ ligature, NUL\u0000 and \ufffd",
    "a[CLS]b [SEP] unaffable antidisestablishmentarianism " + "x" * 120,
    "{\"role\": \"user\", \"content\": \"SELECT * FROM t WHERE id = 42;\"} // 3.14159 != 2.71828",
    "The quarterly report shows that revenue grew while costs fell. " * 20,
]

folder = Path(sys.argv[1])
config = json.loads((folder / "config.json").read_text())
weights = load_file(folder / "model.safetensors")
weights = {name: value.astype(np.float64) for name, value in weights.items()}
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.no_truncation()
erf = np.vectorize(math.erf)


def dense(name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(name, x):
    weight, bias = (weights[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
    spread = np.sqrt(x.var(-1, keepdims=True) + config["layer_norm_eps"])
    return (x - x.mean(-1, keepdims=True)) / spread * weight + bias


def embed(ids):
    names = ("word", "position", "token_type")
    words, positions, types = (weights[f"embeddings.{name}_embeddings.weight"] for name in names)
    x = norm("embeddings", words[ids] + positions[: len(ids)] + types[0])
    heads = config["num_attention_heads"]
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        parts = [dense(f"{at}.attention.self.{part}", x) for part in ("query", "key", "value")]
        q, k, v = (part.reshape(len(ids), heads, -1).transpose(1, 0, 2) for part in parts)
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(x.shape)
        x = norm(f"{at}.attention.output", x + dense(f"{at}.attention.output.dense", mixed))
        wide = dense(f"{at}.intermediate.dense", x)
        wide = wide * (1 + erf(wide / math.sqrt(2))) / 2
        x = norm(f"{at}.output", x + dense(f"{at}.output.dense", wide))
    vector = x.mean(0)
    return vector / np.linalg.norm(vector)


print("[")
for text in TEXTS:
    ids = tokenizer.encode(text).ids
    vector = ",".join(f"{value:.7f}" for value in embed(ids))
    case = json.dumps({"text": text, "ids": ids})
    print(f'{case[:-1]}, "vector": [{vector}]}}', end="\n" if text is TEXTS[-1] else ",\n")
print("]")
