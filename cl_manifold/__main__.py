"""`python -m cl_manifold` is `cl-manifold`."""

from cl_manifold.cli import main

if __name__ == "__main__":
    main()
