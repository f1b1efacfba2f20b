UNION SELECT {owner_name} FROM {work_table} AS w WHERE {running_here}
