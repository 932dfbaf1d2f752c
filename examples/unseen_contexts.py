"""Weights for contexts that nobody trained: eight angles learned, one after the other, 24 tested.

python examples/unseen_contexts.py
"""

import torch

from cl_manifold import Fourier
from cl_manifold.networks import mlp
from cl_manifold.strategies import LinearDecayPlugin, WeightManifoldPlugin, WeightManifoldTraining
from cl_manifold.streams import StreamOptions, load_digits, rotate, rotated

LEARNED, TESTED = 8, 24


def main() -> None:
    """Train on every 45th degree in random order; print accuracy at every 15th."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images = load_digits()
    stream = rotated(images, StreamOptions(contexts=LEARNED))
    net = mlp(stream.input_shape, (256, 256), stream.outputs)
    strategy = WeightManifoldTraining(
        model=net,
        optimizer=torch.optim.Adam(net.parameters(), lr=1e-3),
        manifold=WeightManifoldPlugin(Fourier(harmonics=3)),
        plugins=[LinearDecayPlugin()],
        train_mb_size=16,
        train_epochs=10,
        evaluator=None,
    )
    for experience in stream.train_stream:
        strategy.train(experience, eval_streams=[])
        print(f"learned {experience.context_name}")
    manifold = strategy.manifold
    assert manifold is not None
    mean, std = images.moments
    print("\nangle  accuracy")
    for k in range(TESTED):
        turned = rotate(images.test_x, 360 * k / TESTED).float() / 255
        manifold.check_out(torch.tensor([k / TESTED], dtype=torch.float64))
        with torch.no_grad():
            predicted = net((turned - mean) / std).argmax(-1)
        accuracy = float((predicted == images.test_y).float().mean())
        kind = "learned" if k % (TESTED // LEARNED) == 0 else "never seen"
        print(f"{360 * k / TESTED:4.0f}°  {accuracy:.3f}  {'█' * round(30 * accuracy)} {kind}")


if __name__ == "__main__":
    main()
