"""What a start imports and does: no more than is used, and nothing twice."""

import os
import subprocess
import sys

import pytest
from records import made  # placeholder
