"""What a run tells while it goes on and leaves behind: console, log, TensorBoard, history, summary, pictures.

timing.py       images per second, data-wait share, ETA
console.py      live line, tables, log.txt (terminal.py draws them)
tensorboard.py  curves, pictures, text
history.py      history.csv, summary.json
ledger.py       what the mixture will do and did
pictures.py     boxes on images
"""
