import django.db.models.deletion
from django.db import migrations, models
from oauth2_provider.settings import oauth2_settings


class Migration(migrations.Migration):  # type: ignore[misc]
    initial = True

    dependencies = [migrations.swappable_dependency(oauth2_settings.APPLICATION_MODEL)]

    operations = [
        migrations.CreateModel(
            name="Registration",
            fields=[
                (
                    "application",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="scopeward_registration",
                        serialize=False,
                        to=oauth2_settings.APPLICATION_MODEL,
                    ),
                ),
                ("scope", models.TextField()),
                ("software_id", models.TextField(blank=True)),
                ("software_version", models.TextField(blank=True)),
                ("application_type", models.TextField(blank=True)),
            ],
        ),
    ]
