"""Names of metrics: Avalanche's long strings as the short keys that MLflow's pages like.

MLflow draws one chart per key and one section per prefix, sections in alphabetical order, so keys
stay few and short: `train/loss`, `test/accuracy`, `test_experiences/accuracy_003`.
"""

import posixpath
import re
from collections.abc import Sequence
from typing import final

MINIBATCH = "_minibatch"
_SCORES = {"accuracy": "continual/acc", "R²": "continual/r2"}
_LONGEST = 250
_ILLEGAL = re.compile(r"[^A-Za-z0-9_\-. :/]")
_PHASE = re.compile(r"(train|eval)_phase")
_STREAM = re.compile(r"(.+)_stream")
_TASK = re.compile(r"Task-?\d+")
_EXPERIENCE = re.compile(r"Exp(\d+)")
_REACH = re.compile(r"(?P<metric>.+)_(?P<reach>MB|Iter|Epoch|Exp|Experience|Stream)")
_TOP_K = re.compile(r"Topk_(\d+)_Acc")
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_KNOWN = {
    "Top1_Acc": "accuracy",
    "Top1_RunningAcc": "accuracy_running",
    "Top1_ClassAcc": "accuracy_class",
    "Top1_RunningClassAcc": "accuracy_class_running",
    "Top1_AMCA": "amca",
    "Accuracy_On_Trained_Experiences": "accuracy_trained",
    "StreamForgetting": "forgetting",
    "ExperienceForgetting": "forgetting",
    "StreamBWT": "bwt",
    "ExperienceBWT": "bwt",
    "StreamForwardTransfer": "fwt",
    "ExperienceForwardTransfer": "fwt",
}
_REACH_IN_TRAINING = {
    "MB": MINIBATCH,
    "Iter": "_iteration",
    "Exp": "_experience",
    "Experience": "_experience",
}


def score_key(metric: str) -> str:
    """The key of the mean score over the experiences so far.

    >>> score_key("R²")
    'continual/r2'
    """
    return _SCORES[metric]


def short_key(name: str) -> tuple[str, int | None]:
    """The MLflow key of an Avalanche metric, and the experience it belongs to, if to one.

    The task label is dropped: Avalanche tags averages over a whole stream with the last task only
    (`with_task` keeps it, for values that would fall together). Names that are not Avalanche's keep
    their spelling as far as MLflow allows it.

    >>> short_key("Top1_Acc_Epoch/train_phase/train_stream/Task000")
    ('train/accuracy', None)
    >>> short_key("Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp001")
    ('test_experiences/accuracy_001', 1)
    """
    parts = name.split("/")
    phase = next((i for i, part in enumerate(parts) if _PHASE.fullmatch(part)), 0)
    if phase == 0:
        return legal_key(name), None
    metric, reach = _metric("/".join(parts[:phase]))
    stream, experience, rest = _place(parts[phase + 1 :])
    if parts[phase] == "train_phase":
        section, number = "train", ""
        metric += _REACH_IN_TRAINING.get(reach, "")
    else:
        section = "train_eval" if stream == "train" else stream
        section += "" if experience is None else "_experiences"
        number = "" if experience is None else f"_{experience:03d}"
        metric += MINIBATCH if reach == "MB" else ""
    return legal_key(f"{section}/{'_'.join([metric + number, *rest])}"), experience


def with_task(key: str, name: str) -> str:
    """The key with the task label of the Avalanche metric, where that has one.

    >>> with_task("test/accuracy_class_3", "Top1_ClassAcc_Stream/eval_phase/test_stream/Task001/3")
    'test/accuracy_class_3_task_001'
    """
    found = _TASK.search(name)
    return legal_key(f"{key}_task_{found[0].removeprefix('Task')}") if found else key


def legal_key(name: str) -> str:
    """The name with every character and path step that MLflow refuses replaced.

    >>> legal_key("W&BConfusionMatrix//a[0]")
    'W_BConfusionMatrix/a_0_'
    """
    legal = _ILLEGAL.sub("_", name)
    steps = [re.sub(r"^\.+$", "_", step) for step in legal.split("/")]
    return posixpath.normpath("/".join(step for step in steps if step) or "unnamed")[:_LONGEST]


@final
class Keys:
    """The keys of one run: values of different names never share a key at one step.

    Names share a key as long as their steps differ, as the tasks of a training curve do. From the
    step on at which they meet, each keeps its task; names that differ in something else than the
    task are numbered.

    >>> Keys().assign([("a[0]", 1), ("a(0)", 1)])
    ['a_0_', 'a_0__2']
    """

    def __init__(self) -> None:
        self._latest: dict[tuple[str, int], str] = {}
        self._shared: set[str] = set()
        self._names: dict[str, list[str]] = {}

    def assign(self, values: Sequence[tuple[str, int]]) -> list[str]:
        """The keys of values that are sent together.

        Args:
            values: name and step of each, in order.
        """
        last: dict[str, int] = {}
        sent = dict(self._latest)
        for name, step in values:
            key = short_key(name)[0]
            last[key] = step
            first = self._latest.setdefault((key, step), name)
            if first != name and key not in self._shared:
                self._shared.add(key)
                if (key, step) in sent:
                    self._names[key] = [first]
                self._own(first)  # of names without a task the first keeps the key
        self._latest = {
            (key, step): name
            for (key, step), name in self._latest.items()
            if step == last.get(key, step)
        }
        return [self._own(name) for name, _ in values]

    def _own(self, name: str) -> str:
        key = short_key(name)[0]
        if key not in self._shared:
            return key
        key = with_task(key, name)
        names = self._names.setdefault(key, [])
        if name not in names:
            names.append(name)
        place = names.index(name)
        return f"{key[: _LONGEST - 10]}_{place + 1}" if place else key


def _metric(name: str) -> tuple[str, str]:
    """Short name of a metric and what it was averaged over ("MB", "Epoch", … or "")."""
    found = _REACH.fullmatch(name)
    metric, reach = (found["metric"], found["reach"]) if found else (name, "")
    top = _TOP_K.fullmatch(metric)
    if top:
        return f"accuracy_top{top[1]}", reach
    return _KNOWN.get(metric) or _WORD_STARTS.sub("_", metric).lower(), reach


def _place(parts: list[str]) -> tuple[str, int | None, list[str]]:
    """Stream, experience and whatever else follows the phase in a name."""
    stream, experience, rest = "eval", None, list[str]()
    for part in parts:
        if found := _EXPERIENCE.fullmatch(part):
            experience = int(found[1])
        elif found := _STREAM.fullmatch(part):
            stream = found[1]
        elif not _TASK.fullmatch(part):
            rest.append(part)
    return stream, experience, rest
