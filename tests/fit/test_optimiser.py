import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moec_zarr.fit.network.optimiser import Optimiser  # noqa: E402


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 2, 20, 8), (3, 1, 8, 40)])
def test_matrices_take_orthogonal_steps(shape):
    """Of any shape, the step is 1.5 times the rate times a matrix whose singular values are near one."""
    weight = torch.zeros(shape, requires_grad=True)
    weight.grad = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype("f4"))
    gradient = weight.grad.numpy().copy()
    Optimiser({"w": weight}, {}).step(0.5)
    step = -weight.detach().numpy() / (0.5 * 1.5)
    values = np.linalg.svd(step, compute_uv=False)
    assert values.min() > 0.5
    assert values.max() < 1.3
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    assert (step * (left @ right)).sum() / values.sum() > 0.98  # the same singular vectors


def test_vectors_take_the_steps_of_adam():
    """The first step of Adam is the rate times the sign of the gradient."""
    weight = torch.zeros(5, requires_grad=True)
    weight.grad = torch.tensor([3.0, -0.001, 20.0, -7.0, 0.1])
    Optimiser({"w": weight}, {"w": 0.1}).step(0.5)
    np.testing.assert_allclose(weight.detach(), [-0.05, 0.05, -0.05, 0.05, -0.05], rtol=1e-3)


def test_vectors_follow_torch_adam():
    rng = np.random.default_rng(0)
    gradients = torch.from_numpy(rng.normal(size=(20, 6)).astype("f4"))
    ours, theirs = (torch.ones(6, requires_grad=True) for _ in range(2))
    optimiser = Optimiser({"w": ours}, {})
    reference = torch.optim.Adam([theirs], lr=0.03, betas=(0.9, 0.99))
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimiser.step(0.03)
        reference.step()
    np.testing.assert_allclose(ours.detach(), theirs.detach(), rtol=1e-5)
    assert ours.grad is None


def test_some_networks_go_on_as_with_the_others():
    """Of three, the first and the last: vectors and matrices take the steps that they would have taken."""
    rng = np.random.default_rng(0)
    shapes = {"w": (3, 2, 8, 6), "b": (3, 5)}
    gradients = [
        {name: torch.from_numpy(rng.normal(size=shape).astype("f4")) for name, shape in shapes.items()}
        for _ in range(6)
    ]

    def advance(optimiser, tensors, steps, rows):
        for step in steps:
            for name, tensor in tensors.items():
                tensor.grad = gradients[step][name][rows]
            optimiser.step(0.1)

    whole = {name: torch.zeros(shape, requires_grad=True) for name, shape in shapes.items()}
    optimiser = Optimiser(whole, {"b": 0.5})
    advance(optimiser, whole, range(3), [0, 1, 2])
    rows = [0, 2]
    part = {name: tensor.detach()[rows].requires_grad_() for name, tensor in whole.items()}
    advance(optimiser.rows(part, rows), part, range(3, 6), rows)
    advance(optimiser, whole, range(3, 6), [0, 1, 2])
    for name, tensor in part.items():
        np.testing.assert_allclose(tensor.detach(), whole[name].detach()[rows], rtol=1e-5, atol=1e-6)


def test_a_missing_gradient_counts_as_zero():
    missing, there = (torch.ones(2, 3, requires_grad=True) for _ in range(2))
    optimiser = Optimiser({"missing": missing, "there": there}, {})
    there.grad = torch.ones(2, 3)
    optimiser.step(0.25)
    assert (missing == 1).all()
    np.testing.assert_allclose(there.detach(), 0.75, rtol=1e-5)
