"""Tasks: what candidates learn from and are scored on."""

from collections.abc import Callable
from typing import Any

from rsi_ray.tasks.built_in import BuiltInOptions, built_in_task
from rsi_ray.tasks.digits import DigitsOptions, digits_task
from rsi_ray.tasks.hugging_face import HuggingFaceOptions, hugging_face_task
from rsi_ray.tasks.image_folder import ImageFolderOptions, image_folder_task
from rsi_ray.tasks.scikit_tables import (
    BreastCancerOptions,
    DiabetesOptions,
    breast_cancer_task,
    diabetes_task,
)
from rsi_ray.tasks.table_file import TableOptions, table_task
from rsi_ray.tasks.task import Batch, Domain, DomainTask, Task, TaskHead
from rsi_ray.tasks.text_files import TextFilesOptions, text_files_task

TASKS: dict[str, tuple[type[Any], Callable[[Any], Task]]] = {
    "built_in": (BuiltInOptions, built_in_task),
    "digits": (DigitsOptions, digits_task),
    "breast_cancer": (BreastCancerOptions, breast_cancer_task),
    "diabetes": (DiabetesOptions, diabetes_task),
    "text_files": (TextFilesOptions, text_files_task),
    "image_folder": (ImageFolderOptions, image_folder_task),
    "table": (TableOptions, table_task),
    "hugging_face": (HuggingFaceOptions, hugging_face_task),
}
"""By the name that a sweep's file calls it: a task's options, and what prepares it."""

__all__ = [
    "TASKS",
    "Batch",
    "BreastCancerOptions",
    "BuiltInOptions",
    "DiabetesOptions",
    "DigitsOptions",
    "Domain",
    "DomainTask",
    "HuggingFaceOptions",
    "ImageFolderOptions",
    "TableOptions",
    "Task",
    "TaskHead",
    "TextFilesOptions",
    "breast_cancer_task",
    "built_in_task",
    "diabetes_task",
    "digits_task",
    "hugging_face_task",
    "image_folder_task",
    "table_task",
    "text_files_task",
]
