"""The MLflow run of a comparison: what it keeps while runs come in, and its reports at the end."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, final

from cl_manifold.comparison.jobs import Facts, Job, common_settings
from cl_manifold.comparison.journal import DIGEST
from cl_manifold.comparison.lineup import Tuned, methods_of, user_settings
from cl_manifold.comparison.order import ComparisonOrder, ComparisonResult
from cl_manifold.comparison.outcome import Outcome
from cl_manifold.comparison.rows import Row, rows_of
from cl_manifold.tracking import Store, TrackedRun, keeping, version_tags
from cl_manifold.tracking.keys import legal_key, score_key
from cl_manifold.tracking.page import markdown
from cl_manifold.tracking.sending import Say

Status = Literal["FINISHED", "FAILED", "KILLED"]


@final
class Recorder:
    """Writes one comparison, on this machine first.

    Attributes:
        run: the comparison's run.
    """

    def __init__(
        self, store: Store, run_id: str, order: ComparisonOrder, facts: Facts, say: Say
    ) -> None:
        self._order, self._facts = order, facts
        self._kept = keeping.adopt(store, run_id, say)
        self.run = self._kept.run

    def end(self, outcomes: Sequence[Outcome], tuned: Tuned, status: Status) -> ComparisonResult:
        """Table, figures and reports over what is there, and the end of the run."""
        rows = rows_of(outcomes, self._order.data())
        problems = [
            {"label": o.label, "seed": o.seed, "problem": o.problem} for o in outcomes if o.problem
        ]
        order = self._order
        result = ComparisonResult(
            self.run.run_id, self._facts.name, order.seeds, rows, problems, tuned
        )
        children = [
            {"label": o.label, **{k: v for k, v in o.result.items() if k != "decisions"}}
            for o in outcomes
            if o.result is not None
        ]
        self.run.log_json(result.as_dict() | {"children": children}, "comparison.json")
        self.run.log_metrics(metrics_of(rows))
        if rows:
            self._reports(outcomes, rows, tuned)
        self._kept.finish(status)
        return result

    def _reports(self, outcomes: Sequence[Outcome], rows: Sequence[Row], tuned: Tuned) -> None:
        from cl_manifold.comparison.figures import comparison_figures
        from cl_manifold.comparison.findings import About, findings
        from cl_manifold.comparison.report import html_report, markdown_report, markdown_table

        about = About(
            stream=self._facts.name,
            description=self._facts.description,
            command=self._order.command,
            settings=user_settings(self._order),
            versions=version_tags(),
            seeds=self._order.seeds,
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            tuned=tuned,
            problems=_problems_of_whole_rows(outcomes),
            methods=methods_of(self._order, tuned),
        )
        figures = comparison_figures(outcomes, rows)
        for name, figure in figures.items():
            self.run.log_figure(figure, f"{name}.png")
        self.run.log_table([row.as_dict() for row in rows], "rows.json")
        self.run.log_text(markdown_report(about, rows, outcomes), "report.md")
        self.run.log_text(html_report(about, rows, outcomes, figures), "report.html")
        said = findings(about, rows)
        text = [f"**{markdown(said[0])}**", *map(markdown, said[1:])]
        text += [markdown_table(rows), markdown(self._facts.description)]
        text.append("Open the artifact `report.html` for the whole story.")
        self.run.set_description("\n\n".join(text))


def metrics_of(rows: Sequence[Row]) -> dict[str, float | None]:
    """What MLflow charts of a comparison: means over seeds, under the names of its runs.

    One value each and no history: a strategy stands beside the others.
    """
    key = score_key(rows[0].metric if rows else "accuracy")
    names = {
        key: "score",
        f"{key}_sd": "score_sd",
        "continual/bwt": "bwt",
        "continual/forgetting": "forgetting",
        "continual/unseen_score": "unseen_score",
        "manifold/stored_ratio": "memory_ratio",
    }
    return {
        legal_key(f"{key}/{row.label}"): getattr(row, field)
        for key, field in names.items()
        for row in rows
    }


def start_parent(
    store: Store, order: ComparisonOrder, facts: Facts, jobs: Sequence[Job], digest: str
) -> TrackedRun:
    """The run of a new comparison; where its runs see different data, only they say which.

    Raises:
        StoreError: the store refuses.
    """
    labels = ",".join(entry.label for entry in order.entries)
    same = len(set(order.data().values())) == 1
    own = {"strategies": labels, "seeds": ",".join(map(str, order.seeds)), "tuned": order.tune}
    tags = {"stream": facts.name, "comparison": labels[:4000], DIGEST: digest}
    run = store.start_run(
        name=f"compare {facts.name}",
        description=f"{markdown(facts.description)}\n\nIn progress.",
        params=own | common_settings(jobs),
        tags=version_tags() | tags | ({"dataset_digest": facts.digest} if same else {}),
    )
    if same:
        run.log_dataset(facts.name, facts.digest, jobs[0].resolved.config.stream.holdout)
    return run


def _problems_of_whole_rows(outcomes: Sequence[Outcome]) -> Mapping[str, str]:
    """The reason of every strategy that failed with all seeds for one and the same."""
    reasons: dict[str, set[Any]] = {}
    for outcome in outcomes:
        reasons.setdefault(outcome.label, set()).add(outcome.problem)
    return {
        label: reason
        for label, found in reasons.items()
        if len(found) == 1 and (reason := next(iter(found))) is not None
    }
