"""The bill of materials: CycloneDX 1.6 (ECMA-424), packages and models in one file, the same bytes for the same bundle.

Written by hand: cyclonedx-python-lib 11.12 has no model cards yet. The tests hold the result to the official schema.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airgap.models import Model
from airgap.wheels import Wheel
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from goalcover_local.dependencies import PROJECT
from goalcover_local.model_folder import read_json_object
from goalcover_local.terms import digest_of


def write(wheels: Iterable[Wheel], models: Iterable[Model], path: Path) -> None:
    """Nothing; the file now holds the bill of materials of a bundle with these wheels and models."""
    path.write_text(json.dumps(bill(list(wheels), list(models)), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def bill(wheels: list[Wheel], models: list[Model]) -> dict[str, Any]:
    """The bill of materials; its serial number follows from its content, and it bears no date."""
    by_name = {wheel.name: wheel for wheel in wheels}
    project = by_name.pop(PROJECT)
    root = {**_library(project), "type": "application"}
    dependencies = [
        {
            "ref": _reference(wheel),
            "dependsOn": sorted(
                [_reference(by_name[name]) for name in wheel.needs]
                + [_model_reference(model) for model in models if wheel is project]
            ),
        }
        for wheel in [project, *by_name.values()]
    ]
    content = {
        "metadata": {"component": root},
        "components": [_library(wheel) for wheel in by_name.values()] + [_model(model) for model in models],
        "dependencies": dependencies + [{"ref": _model_reference(model), "dependsOn": []} for model in models],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, digest_of(content))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        **content,
    }


def _library(wheel: Wheel) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": _reference(wheel),
        "name": wheel.name,
        "version": wheel.version,
        "purl": _reference(wheel),
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        **_licences(wheel.licence),
        "properties": [{"name": "goalcover:file", "value": f"wheels/{wheel.path.name}"}],
    }


def _model(model: Model) -> dict[str, Any]:
    """The component of a model: each file with its digest, and a model card of what is known about it."""
    card, manifest = model.card, model.manifest
    config = read_json_object(model.weights.directory / "config.json")
    architecture = next(iter(config.get("architectures") or ()), "")
    made = {f"made with {name}": version for name, version in manifest.converter.items()}
    known = {"weights digest": model.weights.digest, "made from a file with SHA-256": manifest.source_sha256, **made}
    return {
        "type": "machine-learning-model",
        "bom-ref": _model_reference(model),
        "name": card.name,
        "version": model.weights.digest[:16],
        "description": card.title,
        **_licences(card.licence),
        "components": [
            {
                "type": "file",
                "bom-ref": f"{_model_reference(model)}/{quote(name)}",
                "name": f"home/models/{card.name}/{name}",
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
            for name, digest in sorted(model.weights.files.items())
        ],
        "pedigree": {"notes": card.provenance.strip()},
        "modelCard": {
            "modelParameters": {
                "task": "text-generation",
                **({"architectureFamily": str(config["model_type"])} if "model_type" in config else {}),
                **({"modelArchitecture": str(architecture)} if architecture else {}),
                "inputs": [{"format": "text"}],
                "outputs": [{"format": "text"}],
            },
            "considerations": {
                "useCases": [f"{role} of GoalCover" for role in card.roles],
                **({"technicalLimitations": [card.note]} if card.note else {}),
            },
        },
        "properties": [{"name": f"goalcover:{name}", "value": value} for name, value in known.items() if value],
    }


def _licences(stated: str) -> dict[str, Any]:
    """The licence as CycloneDX has it: an SPDX expression if it is one, else a name, else nothing."""
    if stated == "unknown":
        return {}
    try:
        return {"licenses": [{"expression": str(canonicalize_license_expression(stated))}]}
    except InvalidLicenseExpression:
        return {"licenses": [{"license": {"name": stated}}]}


def _reference(wheel: Wheel) -> str:
    """The package URL of a wheel (purl, ECMA-427)."""
    return f"pkg:pypi/{wheel.name}@{quote(wheel.version)}"


def _model_reference(model: Model) -> str:
    return f"model:{model.card.name}@{model.weights.digest[:16]}"
