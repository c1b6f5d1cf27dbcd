-- Changes whenever some worker's models may have.
return call('GET', P .. 'catalogue') or ''
