"""The bundled model `pilot`: the text it learns from, its tokenizer, training, evaluation, card.

Every word the model sees is written in `topics/` and put together by a seeded generator; no
outside text is read. `python -m tools.pilot` (`make pilot`) makes the bundled folder again.
"""
