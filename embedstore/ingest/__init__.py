"""Sources -> rows of a store: each picture is embedded once (`adding`), ready vectors are taken (`ready_vectors`)."""
