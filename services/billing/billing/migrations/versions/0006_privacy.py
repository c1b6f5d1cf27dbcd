"""The audit chain, its anchors, erasures and the people erased."""

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
