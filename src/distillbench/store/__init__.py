"""Everything that knows results/: layout, claims, records, and how runs stand. Without torch, numpy and pandas."""

from distillbench.store.looking import LookingStore
from distillbench.store.runs import Store

__all__ = ["LookingStore", "Store"]
