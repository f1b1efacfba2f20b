UNION SELECT {owner} FROM {work_table} AS w WHERE {status} = ${place}
