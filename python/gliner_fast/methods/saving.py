"""The methods of `GLiNER` that save it, in a folder or on the Hub (compat sections 1.2 and 8)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from gliner_fast import weights
from gliner_fast.checkpoints import weight_files
from gliner_fast.config import CONFIG_NAME, LABEL_TOKENIZER_FOLDER, GLiNERConfig, as_config

if TYPE_CHECKING:
    from gliner_fast.model import GLiNER


class SavingMethods:
    """What saves a model, for `GLiNER` alone."""

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: GLiNERConfig | Mapping[str, Any] | None = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        safe_serialization: bool = False,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Writes a checkpoint folder that `gliner` loads too (compat section 8).

        Args:
            save_directory: made if it is not there. Earlier weights that could be read in place of the new ones are
                removed: those of a variant, int8 rows and, beside a new `pytorch_model.bin`, `model.safetensors`.
                Others stay (`gliner` leaves all).
            config: settings to write instead of the model's.
            repo_id: with `push_to_hub`, where to; None for the folder's name.
            push_to_hub: send what was written to the Hub as well.
            safe_serialization: write `model.safetensors` instead of `pytorch_model.bin`.
            **push_to_hub_kwargs: what `push_to_hub` takes. Without it accepted as `gliner` does, and unused; each name
                is warned about once.

        Returns:
            The address of the commit on the Hub; None where nothing was sent.
        """
        folder = Path(save_directory)
        if not push_to_hub:
            cast("GLiNER", self)._tell_unused(push_to_hub_kwargs, "save_pretrained")  # noqa: SLF001
            self._write(folder, config, safe_serialization)
            return None
        signature(self.push_to_hub).bind("", **push_to_hub_kwargs)  # what it does not take, before anything is written
        self._write(folder, config, safe_serialization)
        return self.push_to_hub(
            folder.name if repo_id is None else repo_id,
            config=config,
            safe_serialization=safe_serialization,
            **push_to_hub_kwargs,
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        config: GLiNERConfig | Mapping[str, Any] | None = None,
        commit_message: str = "Push model using huggingface_hub.",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        allow_patterns: list[str] | str | None = None,
        ignore_patterns: list[str] | str | None = None,
        delete_patterns: list[str] | str | None = None,
        model_card_kwargs: Mapping[str, Any] | None = None,  # noqa: ARG002
        safe_serialization: bool = False,
    ) -> str:
        """Sends a checkpoint to the Hub, as `save_pretrained` writes it, in one commit.

        Args:
            repo_id: such as "me/my-model"; made if it is not there.
            config: settings to write instead of the model's.
            commit_message: the commit's first line.
            private: whether a new repository is; None for the organization's default.
            token: None for that of `hf auth login`.
            branch: None for "main".
            create_pr: open a pull request instead.
            allow_patterns: names of files to send, with wildcards; None sends all.
            ignore_patterns: names of files to leave out.
            delete_patterns: names of files to delete there in the same commit.
            model_card_kwargs: accepted and unused, as by `gliner`, which writes no card either.
            safe_serialization: send `model.safetensors` instead of `pytorch_model.bin`.

        Returns:
            The address of the commit.

        Raises:
            TypeError: `config` is of another kind.
            huggingface_hub.errors.HfHubHTTPError: the Hub refuses it, for want of a token say.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with TemporaryDirectory() as folder:
            self._write(Path(folder), config, safe_serialization)
            repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
            return api.upload_folder(
                repo_id=repo_id,
                repo_type="model",
                folder_path=folder,
                commit_message=commit_message,
                revision=branch,
                create_pr=create_pr,
                allow_patterns=allow_patterns,
                ignore_patterns=ignore_patterns,
                delete_patterns=delete_patterns,
            )

    def _write(self, folder: Path, config: GLiNERConfig | Mapping[str, Any] | None, safe: bool) -> None:
        model = cast("GLiNER", self)
        # Whatever is wrong with these, before anything is written.
        tokenizer = model.data_processor.transformer_tokenizer
        label_tokenizer = model.data_processor.labels_tokenizer if model.config.is_bi_encoder else None
        settings = json.dumps(
            (model.config if config is None else as_config(config)).to_dict(), indent=2, sort_keys=True, default=str
        )
        folder.mkdir(parents=True, exist_ok=True)
        weight_files.write_weights(weights.export_weights(model.model), folder, safe=safe)
        (folder / CONFIG_NAME).write_text(settings + "\n", encoding="utf-8")
        tokenizer.save_pretrained(folder)
        if label_tokenizer is not None:
            label_tokenizer.save_pretrained(folder / LABEL_TOKENIZER_FOLDER)
