"""Rewards behind HTTP, in a process, an environment or a machine of their own.

`POST /v1/score` is multipart/form-data of

- `request` (JSON): `{"prompts": [...], "rewards": [...]}`; without "rewards" all of the server's score;
- `images`: as many PNG or WebP files as prompts (8 bits, RGB or greyscale), or one safetensors file that holds them as
  the tensor `images`, [N, 3, H, W] float32 or float16 in [0, 1].

It answers `{"scores": {reward: [N numbers]}}`. Scores are float32 in full precision; null stands for one that is no
finite number. PNG and WebP hold 8 bits, so their score is that of the rounded picture; a safetensors file is scored as
it is, which makes the answer the in-process score of the very same tensor. That is what the `remote` reward sends.

`GET /v1/rewards` names the rewards, their kinds and the limits; `GET /health` says whether requests are taken. A
refusal is `{"error": reason}` with a status that says whether another try can help: 429 (the queue is full) and 503
(stopping) come with Retry-After, every other 4xx is the request's own fault.
"""
