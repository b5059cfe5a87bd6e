"""The page: clicks -> one call of the library -> what a browser, a notebook or a report shows.

`session` answers every call by name; the hosts carry its answers: `app` and `server` over HTTP, others in a notebook
and in a report. What is asked is read by `asked`. Nothing here decides: that is the business of `deciding`.
"""
