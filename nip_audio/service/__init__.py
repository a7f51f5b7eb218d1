"""Judge, enrol, verify and purify recordings over HTTP (``nip-audio serve``)."""
