"""Avalanche's strategies, each as a recipe for any scenario."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.models import (
    PNN,
    FeCAMClassifier,
    NCMClassifier,
    SCRModel,
    TrainEvalModel,
)
from avalanche.models.generator import VAE_loss
from avalanche.models.packnet import PackNetModel, PackNetPlugin
from avalanche.training import plugins as av
from avalanche.training import supervised as st
from avalanche.training.losses import MaskedCrossEntropy
from avalanche.training.plugins import EvaluationPlugin
from torch import nn
from torch.optim import SGD

from .cells import Cell
from .heads import HIDDEN, FlatVAE, Plain, Remembering, features, network
from .scenarios import DIM, SCENARIOS, Scenario

Options = dict[str, Any]
Recipe = Callable[["Parts"], Any]


@dataclass
class Parts:
    """What every recipe is made of."""

    scenario: Scenario
    plugins: list[Any]
    loggers: list[Any]

    def options(self, model: nn.Module | None = None, **more: Any) -> Options:
        """Model, optimizer, loss, plugins, sizes; without a model the scenario's own."""
        net = network(self.scenario) if model is None else model
        common: Options = {
            "model": net,
            "optimizer": SGD(net.parameters(), lr=0.1, momentum=0.5),
            "criterion": nn.CrossEntropyLoss(),
            "train_mb_size": 16,
            "train_epochs": 2,
            "eval_mb_size": 64,
            "plugins": self.plugins,
            "evaluator": evaluator(self.loggers),
        }
        return common | more


def evaluator(loggers: list[Any], *, accuracies: bool = True) -> EvaluationPlugin:
    """Loss, and accuracy where there are classes; computed with or without a logger."""
    metrics: list[Any] = [loss_metrics(epoch=True, experience=True)]
    if accuracies:
        metrics.append(accuracy_metrics(epoch=True, experience=True, stream=True))
    return EvaluationPlugin(*metrics, loggers=loggers)


def usual(kind: Any, **more: Any) -> Recipe:
    """A strategy that takes a model, an optimizer and its own options."""
    return lambda parts: kind(**parts.options(), **more)


def beside(plugin: Callable[[], Any]) -> Recipe:
    """Naive training with one of Avalanche's plugins after ours."""
    return lambda parts: st.Naive(**parts.options(plugins=[*parts.plugins, plugin()]))


def _without_loss(options: Options) -> Options:
    return {k: v for k, v in options.items() if k != "criterion"}


def cwr(parts: Parts) -> Any:
    options = parts.options()
    layer: Any = "classifier.classifier" if parts.scenario.head == "growing" else None
    return st.CWRStar(**options, cwr_layer_name=layer)


def streaming_lda(parts: Parts) -> Any:
    model = features()
    options = {**_without_loss(parts.options(model)), "slda_model": model}
    del options["model"], options["optimizer"]
    return st.StreamingLDA(
        **options, criterion=nn.CrossEntropyLoss(), input_size=HIDDEN, num_classes=6
    )


def distilled(parts: Parts) -> Any:
    plugins = [*parts.plugins, av.FeatureDistillationPlugin()]
    return st.Naive(**parts.options(Remembering(), plugins=plugins))


def icarl(parts: Parts) -> Any:
    """Growing heads break Avalanche's own iCaRL, so that all classes have an output here."""
    net: Any = Plain(nn.Linear(HIDDEN, 6))
    options = _without_loss(parts.options(net))
    del options["model"]
    return st.ICaRL(
        **options, feature_extractor=net.features, classifier=net.classifier,
        memory_size=24, buffer_transform=None, fixed_memory=True,
    )  # fmt: skip


def scr(parts: Parts) -> Any:
    projection = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 16))
    options = _without_loss(parts.options(SCRModel(features(), projection)))
    accuracies = accuracy_metrics(experience=True, stream=True)
    options["evaluator"] = EvaluationPlugin(accuracies, loggers=parts.loggers)
    return st.SCR(**options, mem_size=24, batch_size_mem=8)


def er_aml(parts: Parts) -> Any:
    options = parts.options()
    features = options["model"].features
    return st.ER_AML(**options, feature_extractor=features, mem_size=96, batch_size_mem=1)


def generative(parts: Parts) -> Any:
    generator = FlatVAE()
    teacher = st.VAETraining(
        model=generator, optimizer=SGD(generator.parameters(), lr=1e-5), criterion=VAE_loss,
        train_mb_size=16, train_epochs=1, plugins=[av.GenerativeReplayPlugin()],
        evaluator=EvaluationPlugin(loggers=[]),
    )  # fmt: skip
    return st.GenerativeReplay(**parts.options(), generator_strategy=teacher)


def progressive(parts: Parts) -> Any:
    net = PNN(num_layers=1, in_features=DIM, hidden_features_per_column=HIDDEN)
    return st.PNNStrategy(**parts.options(net))


def packnet(parts: Parts) -> Any:
    """The plugin: Avalanche's strategy of that name forgets the plugins that it is given."""
    net = PackNetModel(nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 6)))
    plugins = [*parts.plugins, PackNetPlugin(1, 0.5)]
    return st.Naive(**parts.options(net, plugins=plugins))


def cope(parts: Parts) -> Any:
    net = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 16))
    plugin = av.CoPEPlugin(mem_size=24, n_classes=6, p_size=16)
    options = parts.options(net, plugins=[*parts.plugins, plugin], criterion=plugin.ppp_loss)
    return st.Naive(**options)


def feature_replay(parts: Parts) -> Any:
    options = parts.options(criterion=MaskedCrossEntropy())
    return st.FeatureReplay(**options, mem_size=24, batch_size_mem=8)


def nearest_mean(classifier: Any, update: Any) -> Recipe:
    """Naive training, and a classifier by class means or covariances for testing."""

    def recipe(parts: Parts) -> Any:
        net = network(parts.scenario)
        model = TrainEvalModel(net.features, net.classifier, classifier())
        return st.Naive(**parts.options(model, plugins=[*parts.plugins, update()]))

    return recipe


def _decay(parts: Parts) -> Any:
    options = parts.options()
    schedule = torch.optim.lr_scheduler.StepLR(options["optimizer"], 1, 0.5)
    options["plugins"] = [*parts.plugins, av.LRSchedulerPlugin(schedule)]
    return st.Naive(**options)


def prompts(parts: Parts) -> Any:
    options = _without_loss(parts.options())
    del options["model"], options["optimizer"]
    return st.LearningToPrompt(**options, model_name="vit_tiny_patch16_224", pretrained=False)


def lamaml(parts: Parts) -> Any:
    """Its module warns at import where the package that it needs is missing."""
    from avalanche.training.supervised.lamaml import LaMAML

    return LaMAML(**parts.options())


STRATEGIES: dict[str, Recipe] = {
    "Naive": usual(st.Naive),
    "Cumulative": usual(st.Cumulative),
    "JointTraining": usual(st.JointTraining),
    "FromScratchTraining": usual(st.FromScratchTraining),
    "EWC, separate": usual(st.EWC, ewc_lambda=1.0),
    "EWC, online": usual(st.EWC, ewc_lambda=1.0, mode="online", decay_factor=0.5),
    "SynapticIntelligence": usual(st.SynapticIntelligence, si_lambda=0.1),
    "LwF": usual(st.LwF, alpha=1.0, temperature=2.0),
    "MAS": usual(st.MAS, lambda_reg=0.1),
    "RWalk": beside(av.RWalkPlugin),
    "LFL": usual(st.LFL, lambda_e=0.1),
    "FeatureDistillation": distilled,
    "Replay": usual(st.Replay, mem_size=24),
    "GDumb": usual(st.GDumb, mem_size=24),
    "AGEM": usual(st.AGEM, patterns_per_exp=24, sample_size=16),
    "GEM": usual(st.GEM, patterns_per_exp=24),
    "GSS_greedy": usual(st.GSS_greedy, mem_size=64, mem_strength=5, input_size=[DIM]),
    "MIR": usual(st.MIR, mem_size=24, subsample=12, batch_size_mem=8),
    "RAR": beside(partial(av.RARPlugin, 8, mem_size=24, name_ext_layer="features", iter_fgsm=1)),
    "MER": usual(st.MER, mem_size=24, batch_size_mem=8, n_inner_steps=1),
    "DER": usual(st.DER, mem_size=24, batch_size_mem=8, beta=0.0),
    "DER++": usual(st.DER, mem_size=24, batch_size_mem=8, beta=0.5),
    "ER_ACE": usual(st.ER_ACE, mem_size=24, batch_size_mem=8),
    "ER_AML": er_aml,
    "SCR": scr,
    "ICaRL": icarl,
    "FeatureReplay": feature_replay,
    "CoPE": cope,
    "CWRStar": cwr,
    "StreamingLDA": streaming_lda,
    "NCM, current data": nearest_mean(NCMClassifier, av.CurrentDataNCMUpdate),
    "NCM, memory": nearest_mean(NCMClassifier, partial(av.MemoryNCMUpdate, 24)),
    "FeCAM": nearest_mean(FeCAMClassifier, av.CurrentDataFeCAMUpdate),
    "GenerativeReplay": generative,
    "PNNStrategy": progressive,
    "PackNet": packnet,
    "BiC": usual(st.BiC, mem_size=24, stage_2_epochs=2),
    "LaMAML": lamaml,
    "LRScheduler": _decay,
    "LearningToPrompt": prompts,
}


ELSEWHERE = {"FeCAM"}
"""Whose classifiers answer from dictionaries that no `state_dict` holds and no plugin can see."""


def cells() -> list[Cell]:
    """Every strategy in every scenario."""
    return [
        Cell(
            "strategies", row, column, scenario, partial(_built, recipe),
            jointly=row == "JointTraining", whole=row not in ELSEWHERE, logged=True,
        )
        for row, recipe in STRATEGIES.items()
        for column, scenario in SCENARIOS.items()
    ]  # fmt: skip


def _built(recipe: Recipe, scenario: Scenario, plugins: list[Any], loggers: list[Any]) -> Any:
    return recipe(Parts(scenario, plugins, loggers))
