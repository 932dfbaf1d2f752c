"""All angles at once: digits turned by an angle of their own, one weight for each angle.

python examples/context_per_sample.py
"""

import torch
from torch.nn.functional import cross_entropy

from cl_manifold import Fourier
from cl_manifold.manifold.module import ManifoldModule
from cl_manifold.manifold.natural_step import NaturalStep, empirical_gram
from cl_manifold.networks import mlp
from cl_manifold.streams import load_digits, rotate

ANGLES, HELD_OUT, STEPS = 48, 270, 800


def main() -> None:
    """Train on angles below 270 degrees, a context per sample; print accuracy all around."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images = load_digits()
    mean, std = images.moments
    degrees = [360 * k / ANGLES for k in range(ANGLES)]
    contexts = torch.tensor(degrees, dtype=torch.float64)[:, None] / 360
    turned = torch.stack([rotate(images.train_x, angle) for angle in degrees])
    seen = sum(angle < HELD_OUT for angle in degrees)

    net = ManifoldModule(mlp((1, 16, 16), (128,), images.classes), Fourier(harmonics=1))
    sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    optimizer = NaturalStep(sgd, net, empirical_gram(net.basis, contexts[:seen], strength=0.1))
    for _ in range(STEPS):
        angle, sample = torch.randint(seen, (128,)), torch.randint(len(images.train_y), (128,))
        x = (turned[angle, sample].float() / 255 - mean) / std
        optimizer.zero_grad()
        cross_entropy(net(x, contexts[angle]), images.train_y[sample]).backward()
        optimizer.step()

    print("angle  accuracy")
    for k in range(0, ANGLES, 2):
        x = (rotate(images.test_x, degrees[k]).float() / 255 - mean) / std
        with torch.no_grad():
            predicted = net(x, contexts[k]).argmax(-1)
        accuracy = float((predicted == images.test_y).float().mean())
        kind = "" if k < seen else "held out"
        print(f"{degrees[k]:4.0f}°  {accuracy:.3f}  {'█' * round(30 * accuracy)} {kind}")


if __name__ == "__main__":
    main()
