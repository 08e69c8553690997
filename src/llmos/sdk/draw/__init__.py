"""What the sdk's results look like: words, tables and drawings, as text, HTML and SVG. Pure.

Knows abi only. Nothing here is loaded until something is shown. The console draws with it too; a
notebook has no style sheet of ours, so `sheet` brings one along.
"""
