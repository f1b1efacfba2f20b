OR a.worker IN (SELECT {owner} FROM {work_table} AS w WHERE {status} = ${place})
