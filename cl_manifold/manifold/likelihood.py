"""Stub until the branch lands."""


class Likelihood:
    def change(self, before, after):
        return float((before.argmax(-1) != after.argmax(-1)).float().mean())


class Categorical(Likelihood): ...


class Projections(Likelihood): ...


def likelihood_of(criterion):
    return Categorical()
