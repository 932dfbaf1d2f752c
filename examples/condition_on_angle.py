"""All contexts at once: one network that is told by how far each image is turned.

Every image of a mini-batch has an angle of its own. Three quadrants are trained; in the last one
the weights are an extrapolation along the circle.

    python examples/condition_on_angle.py
"""

import torch
from torch.nn.functional import cross_entropy

from cl_manifold import Fourier
from cl_manifold.manifold.module import ManifoldModule
from cl_manifold.manifold.natural_step import NaturalStep
from cl_manifold.networks import mlp
from cl_manifold.streams import load_digits, rotate_each

STEPS, BATCH = 600, 64


def main() -> None:
    """Train on 0° to 270°; print accuracy all around."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images = load_digits()
    mean, std = images.moments
    train_x, test_x = ((x.float() / 255 - mean) / std for x in (images.train_x, images.test_x))

    net = ManifoldModule(mlp(images.input_shape, (128, 128), 10), Fourier(1, period=360.0))
    optimizer = NaturalStep(torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9), net)
    for _ in range(STEPS):
        rows = torch.randint(len(train_x), (BATCH,))
        angles = 270 * torch.rand(BATCH, 1)
        x = rotate_each(train_x[rows], angles[:, 0])
        optimizer.zero_grad()
        cross_entropy(net(x, angles), images.train_y[rows]).backward()
        optimizer.step()

    print("angle  accuracy")
    for degrees in range(0, 360, 15):
        turned = rotate_each(test_x, torch.full((len(test_x),), float(degrees)))
        there = net.materialise(torch.tensor([float(degrees)]))  # a plain network for one angle
        with torch.no_grad():
            accuracy = float((there(turned).argmax(-1) == images.test_y).float().mean())
        kind = "trained" if degrees <= 270 else "never seen"
        print(f"{degrees:4}°  {accuracy:.3f}  {'█' * round(30 * accuracy)} {kind}")


if __name__ == "__main__":
    main()
