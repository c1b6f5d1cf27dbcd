"""The counter of findings, whoever records them."""

from prometheus_client import Counter

findings = Counter("easel_billing_findings", "Findings recorded, by kind.", ["kind"])
