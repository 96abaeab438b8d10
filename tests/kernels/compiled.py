"""Compiles every kernel of a generated file ahead of time and prints a report of each.

    compiled.py MODULE PLANS TARGET,... ELEMENT,...

The process must not have TRITON_INTERPRET=1.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
import sys
from dataclasses import asdict
from pathlib import Path

from starc.compiler.kernel_plan import KernelPlan
from starc.runtime.kernels import TARGETS, compile_kernel


def main() -> None:
    module_path, plans_path, targets, elements = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("generated", module_path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    plans: tuple[KernelPlan, ...] = pickle.loads(Path(plans_path).read_bytes())

    reports = []
    for plan in plans:
        for element in elements.split(","):
            for launch in plan.launches(element):
                for target in targets.split(","):
                    report = compile_kernel(
                        getattr(module, launch.kernel),
                        launch.signature,
                        TARGETS[target],
                        constants=launch.constants,
                        aligned=launch.aligned,
                        warps=launch.warps,
                        stages=launch.stages,
                    )
                    more = {"fits": report.fits, "element": element, "products": launch.products}
                    reports.append({**asdict(report), **more})
    json.dump(reports, sys.stdout)


if __name__ == "__main__":
    main()
