"""The one place that knows about processes: where this one stands, how they meet, and every collective the package makes.

world.py        where this process stands, from the environment of its launcher
meeting.py      the store through which the ranks meet, and who is waited for
waiting.py      reports every 10 s who is waited for in a collective, and who was to blame when it fails
peers.py        the other ranks as this one sees them: how far they have come, whether they are alive
last_words.py   how each rank ended, for those that miss it
group.py        the process group, held open around a run
collectives.py  every collective the package makes, but those of a step's sums
tree.py         sums over the micro batches of a step, in one order on any number of ranks
gradients.py    the gradients of a step, added in that order, or by DistributedDataParallel
"""

from ddptrain.distributed.collectives import (
    agree,
    all_reduce_sum,
    broadcast_object,
    differentiable_sum,
    first_true,
    gather_arrays,
    gather_objects,
    gather_rows,
    gather_to_main,
    on_main,
    rank_and_size,
    share_weights,
)
from ddptrain.distributed.gradients import Gradients, Reduction, build_gradients
from ddptrain.distributed.group import last_word, process_group
from ddptrain.distributed.tree import TreeSum
from ddptrain.distributed.waiting import RankLost, Stop, Waiting
from ddptrain.distributed.world import World, discover, discover_or_cpu

__all__ = [
    "Gradients",
    "RankLost",
    "Reduction",
    "Stop",
    "TreeSum",
    "Waiting",
    "World",
    "agree",
    "all_reduce_sum",
    "broadcast_object",
    "build_gradients",
    "differentiable_sum",
    "discover",
    "discover_or_cpu",
    "first_true",
    "gather_arrays",
    "gather_objects",
    "gather_rows",
    "gather_to_main",
    "last_word",
    "on_main",
    "process_group",
    "rank_and_size",
    "share_weights",
]
