"""What is asked of the operating system, and the small files of a run folder. Nothing here imports torch: the command line and
the launcher use it on machines without it.

files.py      files that are never seen half-written      limits.py     how many files may be open
processes.py  which process is meant, is it alive         terminal.py   outliving the terminal
temporary.py  temporary folders that name their owner     printable.py  text that a terminal does not obey
lock.py       one process at a time in a run folder       owner.py      what the lock says about its owner
start.py      the checkpoint that a run was started from  status.py     the state of a run, exit statuses
ending.py     how a process ends that may be a rank       clock.py      where time goes
"""
